import lightbus
from lightbus import Api, Event

bus = lightbus.create(service_name="auth")


class AuthApi(Api):
    user_created = Event(parameters=("username", "email"))
    user_updated = Event(parameters=("username", "new_email"))
    user_deleted = Event(parameters=("username",))

    class Meta:
        name = "auth"


bus.client.register_api(AuthApi())
