"""Prints the numbers and names of Modal's messages from the installed official client: one line a message, enum or RPC.

Reads names from standard input. `facts-<version>.txt` is its output for the version that we have checked.
"""

import sys

from modal_proto import api_pb2

FILE = api_pb2.DESCRIPTOR
SCALARS = {1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 8: "bool", 9: "string", 12: "bytes", 13: "uint32"}


def type_name(descriptor):
    return descriptor.full_name.removeprefix("modal.client.").replace("google.protobuf.", "g.")


def field(f):
    words = [str(f.number)]
    oneof = f.containing_oneof
    if f.is_repeated:
        words.append("rep")
    elif oneof and oneof.name == "_" + f.name.lstrip("_"):
        words.append("opt")
    elif oneof:
        words.append(f"oneof({oneof.name})")
    target = f.message_type or f.enum_type
    words.append(type_name(target) if target else SCALARS[f.type])
    return " ".join([*words, f.name])


def find(kinds, name):
    first, *rest = name.split(".")
    found = FILE.message_types_by_name.get(first)
    for part in rest:
        found = kinds(found).get(part) if part == rest[-1] else found.nested_types_by_name.get(part)
    return found


for line in sys.stdin:
    kind, name = line.split()
    if kind == "RPC":
        method = FILE.services_by_name["ModalClient"].methods_by_name[name]
        print(f"RPC {name}: {type_name(method.input_type)} -> {'stream ' * method.server_streaming}{type_name(method.output_type)}")
    elif kind == "enum":
        enum = FILE.enum_types_by_name.get(name) or find(lambda message: message.enum_types_by_name, name)
        print(f"enum {name}: " + ", ".join(f"{value.name}={value.number}" for value in enum.values))
    else:
        message = find(lambda message: message.nested_types_by_name, name)
        print(f"message {name}: " + "; ".join(field(f) for f in message.fields))
