"""Fires events from Flask, on the threads of the server. gunicorn may fork before or after that.

gunicorn --workers 2 --threads 4 --preload with_flask:app
"""

from bus import AuthApi, bus
from flask import Flask, request

app = Flask(__name__)


@app.post("/users")
def create_user():
    user = request.get_json()
    message = bus[AuthApi].user_created.fire(username=user["username"], email=user["email"])
    return {"event": message.id}, 201
