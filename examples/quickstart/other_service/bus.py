import lightbus

bus = lightbus.create(service_name="other")
user_db = {}


def handle_created(username, email):
    user_db[username] = email
    print(user_db)


def handle_updated(username, new_email):
    user_db[username] = new_email
    print(user_db)


def handle_deleted(username):
    user_db.pop(username)
    print(user_db)


@bus.client.on_start()
def on_start():
    # Bus client has started up, so register our listeners
    bus.auth.user_created.listen(handle_created, listener_name="user_created")
    bus.auth.user_updated.listen(handle_updated, listener_name="user_updated")
    bus.auth.user_deleted.listen(handle_deleted, listener_name="user_deleted")
