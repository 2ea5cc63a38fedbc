import modal

work = modal.Function.from_name("app", "work")

call = work.spawn("echo", {"a": [1, "ü", None]})
print("get:", call.get(timeout=20))
print("again:", modal.FunctionCall.from_id(call.object_id).get(timeout=0))
print("remote:", work.remote("echo", 2))

slow = work.spawn("sleep", 60_000)
try:
    slow.get(timeout=0)
except TimeoutError as error:
    print("not yet:", type(error).__name__)
work.remote("echo", "is surely running")
slow.cancel()
try:
    slow.get(timeout=20)
except Exception as error:
    print("cancelled:", type(error).__name__, error)

try:
    work.remote("exit", 7)
except Exception as error:
    print("exit:", type(error).__name__, str(error).split(" ", 2)[2])

try:
    modal.Function.from_name("app", "other").hydrate()
except Exception as error:
    print("missing:", type(error).__name__, error)
