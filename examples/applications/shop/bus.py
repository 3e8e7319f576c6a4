"""What can happen in the shop. The programs beside this one fire it."""

import lightbus
from lightbus import Api, event

bus = lightbus.create(service_name="shop")


class AuthApi(Api):
    @event
    def user_created(self, *, username: str, email: str) -> None:
        """Someone has an account now."""

    class Meta:
        name = "auth"


bus.client.register_api(AuthApi)
