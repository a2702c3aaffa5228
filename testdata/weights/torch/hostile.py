"""Makes `hostile/`: files that look like those of `torch.save` and would run code, take memory or lead astray.

Needs Python alone. Every pickle but the cut ones is checked to be well-formed by pickletools, so that a reader that
refuses it does so for what it says. `control.pth` is made in the same way and holds weights.
"""

import io
import pickletools
import struct
import zipfile
from pathlib import Path

HERE = Path(__file__).parent / "hostile"
COMMAND = "touch /tmp/simmim-was-here"


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):
    size = (8 + (value + (value < 0)).bit_length()) // 8
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def glob(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def tuple_of(*items):
    return b"(" + b"".join(items) + b"t"


def call(function, *arguments):
    return function + tuple_of(*arguments) + b"R"


def dict_of(**items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def storage(key="0", kind="FloatStorage", values=4):
    return tuple_of(text("storage"), glob("torch", kind), text(key), text("cpu"), number(values)) + b"Q"


def tensor(of=None, offset=0, shape=(2, 2), strides=(2, 1)):
    numbers = [tuple_of(*map(number, sizes)) for sizes in (shape, strides)]
    hooks = glob("collections", "OrderedDict") + b")R"
    arguments = [of or storage(), number(offset), *numbers, b"\x89", hooks]
    return call(glob("torch._utils", "_rebuild_tensor_v2"), *arguments)


FOUR = struct.pack("<4f", 1, 2, 3, 4)


def archive(pickle, storages={"0": FOUR}, extra=(), compression=zipfile.ZIP_STORED, is_checked=True):
    """An archive as torch writes it; `compression` is of the storages."""
    if is_checked:
        pickletools.dis(pickle, out=io.StringIO())
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        file.writestr(zipfile.ZipInfo("archive/data.pkl"), pickle)
        for key, data in storages.items():
            file.writestr(zipfile.ZipInfo(f"archive/data/{key}"), data, compression)
        for name, data in extra:
            file.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def pickle(value, protocol=2):
    return b"\x80" + bytes([protocol]) + value + b"."


def weights(value):
    return pickle(dict_of(w=value))


def overlapping():
    """A central directory in which 50 storages are the same bytes."""
    data = bytes(4096)
    tensors = {f"w{i}": tensor(storage(str(i), values=1024), shape=(1024,), strides=(1,)) for i in range(50)}
    whole = archive(pickle(dict_of(**tensors)), {"0": data})
    end = whole.rindex(b"PK\x05\x06")
    start = struct.unpack_from("<I", whole, end + 16)[0]
    directory = whole[start:end]
    first = directory.index(b"PK\x01\x02", 1)
    entry = directory[first:]  # that of the storage
    name = b"archive/data/0"
    entries = [directory[:first], entry]
    for i in range(1, 50):
        other = f"archive/data/{i}".encode()
        entries.append(entry[:28] + struct.pack("<H", len(other)) + entry[30:].replace(name, other))
    directory = b"".join(entries)
    return whole[:start] + directory + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 51, 51, len(directory), start, 0)


def deflated_pickle():
    """A pickle of a million dicts in a few kilobytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(zipfile.ZipInfo("archive/data.pkl"), pickle(b"(" + b"}" * 2**20 + b"t"), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def main():
    HERE.mkdir(exist_ok=True)
    run = tuple_of(text(COMMAND))
    short = lambda value: b"\x8c" + bytes([len(value)]) + value.encode()
    namespace = glob("argparse", "Namespace") + b")\x81"
    control = archive(weights(tensor()))
    many = {f"w{i}": b"h\x01" for i in range(1, 1000)}
    loop = b"}q\x00(" + text("model") + b"h\x00" + text("list") + b"]q\x01h\x01au"
    files = {
        "control": control,
        # code
        "system-global": archive(weights(glob("posix", "system") + run + b"R")),
        "system-stack-global": archive(pickle(short("posix") + short("system") + b"\x93" + run + b"R", 4)),
        "eval": archive(weights(call(glob("__builtin__", "eval"), text("__import__('os').system('ls')")))),
        "nested-reduce": archive(
            weights(
                call(
                    glob("collections", "OrderedDict"),
                    call(glob("builtins", "getattr"), call(glob("builtins", "__import__"), text("os")), text("system")),
                )
            )
        ),
        "reduce-of-a-text": archive(weights(text("os.system") + run + b"R")),
        "reduce-of-a-storage-class": archive(weights(call(glob("torch", "FloatStorage"), number(10**12)))),
        "ordered-dict-of-arguments": archive(weights(call(glob("collections", "OrderedDict"), b"]"))),
        "build-of-a-function": archive(
            weights(glob("torch._utils", "_rebuild_tensor_v2") + dict_of(__code__=text("x")) + b"b")
        ),
        "build-of-a-tensor": archive(weights(tensor() + dict_of(__class__=text("x")) + b"b")),
        "object-among-weights": archive(pickle(dict_of(w=tensor(), x=namespace + dict_of(__class__=text("x")) + b"b"))),
        "newobj": archive(weights(glob("subprocess", "Popen") + run + b"\x81")),
        "newobj-of-a-function": archive(weights(glob("torch._utils", "_rebuild_tensor_v2") + run + b"\x81")),
        "newobj-ex": archive(weights(namespace[:-2] + b")}\x92")),
        "inst": archive(weights(b"(" + text(COMMAND) + b"iposix\nsystem\n")),
        "obj": archive(weights(b"(" + namespace[:-2] + b"o")),
        "ext1": archive(weights(b"\x82\x01")),
        "ext2": archive(weights(b"\x83\x01\x00")),
        "ext4": archive(weights(b"\x84\x01\x00\x00\x00")),
        "persid": archive(weights(b"Pstorage\n")),
        "script": archive(weights(glob("__torch__.models", "Net") + b")\x81")),
        # the machine
        "memo-loop": archive(pickle(loop)),
        "memo-missing": archive(weights(b"h\x63"), is_checked=False),
        "deep": archive(weights(b")" + b"\x85" * 30000)),
        "stack-underflow": archive(b"\x80\x02\x85.", is_checked=False),
        "below-the-mark": archive(b"\x80\x02}N(s.", is_checked=False),
        "no-mark": archive(b"\x80\x02}u.", is_checked=False),
        "protocol-9": archive(b"\x80\x09N.", is_checked=False),
        "long-text": archive(b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"x.", is_checked=False),
        "not-a-text-key": archive(pickle(b"}" + number(1) + tensor() + b"s")),
        "nothing-but-a-list": archive(pickle(b"]")),
        # storages
        "storage-of-a-path": archive(weights(tensor(storage("../../../etc/passwd")))),
        "storage-not-there": archive(weights(tensor(storage("7")))),
        "storage-by-a-text": archive(weights(tensor(text("0") + b"Q"))),
        "storage-of-complex-numbers": archive(weights(tensor(storage(kind="ComplexFloatStorage")))),
        "storage-too-short": archive(weights(tensor()), {"0": FOUR[:12]}),
        "storage-of-negative-size": archive(weights(tensor(storage(values=-4)))),
        "storage-of-two-types": archive(pickle(dict_of(a=tensor(), b=tensor(storage(kind="IntStorage"))))),
        "claims-100-gb": archive(weights(tensor(storage(values=25 * 10**9), shape=(25 * 10**9,), strides=(1,)))),
        "beyond-its-storage": archive(weights(tensor(shape=(2, 3), strides=(3, 1)))),
        "offset-beyond-its-storage": archive(weights(tensor(offset=1))),
        "strides-of-0": archive(weights(tensor(shape=(10**10,), strides=(0,)))),
        "sizes-that-overflow": archive(weights(tensor(shape=(2**62, 2**62), strides=(2**62, 1)))),
        "strides-that-overflow": archive(weights(tensor(shape=(2, 2), strides=(2**62 * 2 - 1, 2**62 * 2 - 1)))),
        "negative-size": archive(weights(tensor(shape=(-1, 2)))),
        "nine-dimensions": archive(weights(tensor(shape=(1,) * 9, strides=(1,) * 9))),
        "fewer-strides": archive(weights(tensor(strides=(1,)))),
        "views-of-one-storage": archive(
            pickle(dict_of(w0=tensor(storage(values=512), shape=(512,), strides=(1,)) + b"q\x01", **many)),
            {"0": bytes(2048)},
        ),
        # the archive
        "bomb-of-a-storage": archive(
            weights(tensor(storage(values=2**20), shape=(2**20,), strides=(1,))), {"0": bytes(2**22)},
            compression=zipfile.ZIP_DEFLATED,
        ),
        "bomb-of-a-pickle": deflated_pickle(),
        "overlapping": overlapping(),
        "truncated": control[: len(control) // 2],
        "truncated-pickle": archive(weights(tensor())[:-40], is_checked=False),
        "two-pickles": archive(weights(tensor()), extra=[("other/data.pkl", b"\x80\x02N.")]),
        "no-pickle": archive(weights(tensor())).replace(b"data.pkl", b"deta.pkl"),
        "other-byte-order": archive(weights(tensor()), extra=[("archive/byteorder", b"big")]),
        "wrong-checksum": control.replace(FOUR, FOUR[::-1]),
    }
    for old in HERE.glob("*.pth"):
        old.unlink()
    for name, data in files.items():
        (HERE / f"{name}.pth").write_bytes(data)


main()
