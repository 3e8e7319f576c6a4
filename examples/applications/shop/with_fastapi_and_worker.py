"""FastAPI in a process that also handles events.

uvicorn with_fastapi_and_worker:app
"""

from contextlib import asynccontextmanager

import lightbus
from bus import bus
from fastapi import FastAPI

greeted = []


async def greet(username):
    greeted.append(username)


bus.auth.user_created.listen(greet, listener_name="greet")


@asynccontextmanager
async def lifespan(app):
    async with lightbus.Worker(bus):
        yield
    await bus.client.close_async()


app = FastAPI(lifespan=lifespan)


@app.get("/greeted")
async def get_greeted():
    return greeted
