"""FastAPI in a process that also handles events.

uvicorn with_fastapi_and_worker:app
"""

from contextlib import asynccontextmanager

import lightbus
from bus import bus
from fastapi import FastAPI
from fastapi.responses import JSONResponse

greeted = []


async def greet(username):
    greeted.append(username)


# With the default, SHUTDOWN, the worker would stop at the first failure, and the server go on.
bus.auth.user_created.listen(greet, listener_name="greet", on_error=lightbus.OnError.RETRY)


@asynccontextmanager
async def lifespan(app):
    async with lightbus.Worker(bus) as worker:
        app.state.worker = worker
        yield
    await bus.client.close_async()


app = FastAPI(lifespan=lifespan)


@app.get("/ready")
async def get_ready():
    problems = await app.state.worker.check_health()
    return JSONResponse({"problems": problems}, status_code=503 if problems else 200)


@app.get("/greeted")
async def get_greeted():
    return greeted
