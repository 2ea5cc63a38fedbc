"""The messages and methods of the host's gRPC service (host/executor-api/proto/executor.proto).

They are made at run time from the descriptors in `messages.binpb`, because generated code would tie the package to one
version of protobuf, and each Airflow brings its own.
"""

from __future__ import annotations

from importlib import resources

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "modalflow.executor.v1"

_pool = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    resources.files(__package__).joinpath("messages.binpb").read_bytes()
).file:
    _pool.Add(_file)


def message(name: str):
    """The class of a message, `SpawnRequest` for instance."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


Workload = message("Workload")
Call = message("Call")
Ended = message("Ended")
Refused = message("Refused")


class Stub:
    """The service's methods on a channel: `stub.Spawn(request, timeout=…)`, `stub.Observe.future(request)`."""

    def __init__(self, channel):
        service = _pool.FindServiceByName(f"{PACKAGE}.Executor")
        for method in service.methods:
            call = channel.unary_unary(
                f"/{service.full_name}/{method.name}",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
            )
            setattr(self, method.name, call)
