"""Writes what torch.save writes, without PyTorch."""

import io
import pickle
import zipfile


class Global:
    """Pickled as the name of something, as PyTorch's files do with its functions."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Called:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class Built(Called):
    """Called without arguments, and then given a state."""

    def __init__(self, function, state):
        super().__init__(function)
        self.state = state


class Stored:
    def __init__(self, kind, key, count, *view):
        kind = Global("torch", f"{kind}Storage")
        self.id = ("storage", kind, key, "cpu", count, *view)


class Writer(pickle._Pickler):
    """Writes what torch.save writes, without PyTorch."""

    def save(self, thing, save_persistent_id=True):
        if isinstance(thing, Global):
            self.write(f"c{thing.module}\n{thing.name}\n".encode())
        elif isinstance(thing, Called):
            self.save(thing.function)
            self.save(thing.arguments)
            self.write(b"R")
            if isinstance(thing, Built):
                self.save(thing.state)
                self.write(b"b")
        elif isinstance(thing, Stored):
            self.save(thing.id)
            self.write(b"Q")
        else:
            super().save(thing, save_persistent_id)


REBUILD = Global("torch._utils", "_rebuild_tensor_v2")


def tensor(stored, offset, shape, strides, *metadata):
    nothing = Called(Global("collections", "OrderedDict"))
    return Called(REBUILD, stored, offset, shape, strides, False, nothing, *metadata)


def dump(thing, protocol=2):
    stream = io.BytesIO()
    Writer(stream, protocol).dump(thing)
    return stream.getvalue()


def write(path, thing, storages=None, raw=None, order=None):
    """Write a file of today's form, of a thing or of a raw pickle."""
    raw = dump(thing) if raw is None else raw
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", raw)
        if order:
            archive.writestr("a/byteorder", order)
        for key, array in (storages or {}).items():
            archive.writestr(f"a/data/{key}", array.tobytes())
    return path


def write_older(path, *parts):
    head = (0x1950A86A20F9469CFC6C, 1001)
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in (*head, *parts)))
    return path
