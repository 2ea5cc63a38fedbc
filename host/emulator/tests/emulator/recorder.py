"""Stands between a client of Modal's API and a server, and writes down what the client asks: one JSON object a line.

usage: recorder.py TARGET FILE        TARGET: host:port of the server; prints its own port once it listens.

Messages are read with the official client's own descriptors, so that no field is lost.
"""

import asyncio
import json
import sys

import grpclib.client
import grpclib.const
import grpclib.server
from google.protobuf import json_format, message_factory
from modal_proto import api_pb2

TARGET, FILE = sys.argv[1:3]
HOP = ("x-", "user-agent")


class Recorder:
    def __init__(self, channel):
        self.channel = channel

    def __mapping__(self):
        service = api_pb2.DESCRIPTOR.services_by_name["ModalClient"]
        return {f"/modal.client.ModalClient/{method.name}": self.handler(method) for method in service.methods}

    def handler(self, method):
        question = message_factory.GetMessageClass(method.input_type)
        answer = message_factory.GetMessageClass(method.output_type)
        kind = (
            grpclib.const.Cardinality.UNARY_STREAM if method.server_streaming else grpclib.const.Cardinality.UNARY_UNARY
        )

        async def forward(stream):
            request = await stream.recv_message()
            record = {"rpc": method.name, "request": json_format.MessageToDict(request, preserving_proto_field_name=True)}
            with open(FILE, "a") as file:
                file.write(json.dumps(record, sort_keys=True) + "\n")
            metadata = {name: value for name, value in stream.metadata.items() if name.startswith("x-")}
            path = f"/modal.client.ModalClient/{method.name}"
            kinds = {"unary": grpclib.client.UnaryUnaryMethod, "stream": grpclib.client.UnaryStreamMethod}
            call = kinds["stream" if method.server_streaming else "unary"](self.channel, path, question, answer)
            async with call.open(metadata=metadata) as onward:
                await onward.send_message(request, end=True)
                async for message in onward:
                    await stream.send_message(message)

        return grpclib.const.Handler(forward, kind, question, answer)


async def main():
    host, port = TARGET.rsplit(":", 1)
    server = grpclib.server.Server([Recorder(grpclib.client.Channel(host, int(port)))])
    await server.start("127.0.0.1", 0)
    print(server._server.sockets[0].getsockname()[1], flush=True)
    await server.wait_closed()


asyncio.run(main())
