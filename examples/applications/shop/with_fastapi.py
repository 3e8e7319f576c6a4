"""Fires events from FastAPI, on the server's event loop.

uvicorn with_fastapi:app
"""

from contextlib import asynccontextmanager

from bus import AuthApi, bus
from fastapi import FastAPI
from pydantic import BaseModel


@asynccontextmanager
async def lifespan(app):
    yield
    await bus.client.close_async()


app = FastAPI(lifespan=lifespan)


class NewUser(BaseModel):
    username: str
    email: str


@app.post("/users", status_code=201)
async def create_user(user: NewUser):
    message = await bus[AuthApi].user_created.fire_async(username=user.username, email=user.email)
    return {"event": message.id}
