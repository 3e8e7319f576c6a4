"""The bus and the events of the shop. The programs in this directory fire the events."""

import lightbus
from lightbus import Api, event

bus = lightbus.create(service_name="shop")


class AuthApi(Api):
    @event
    def user_created(self, *, username: str, email: str) -> None:
        """A user has signed up."""

    class Meta:
        name = "auth"


bus.client.register_api(AuthApi)
