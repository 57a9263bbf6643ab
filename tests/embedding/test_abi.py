"""What compiled programs rely on: signatures, offsets and numbers stay what they are, and table and header agree."""

import ctypes
import math
import re
import shutil

import pytest

import csoftmax
from csoftmax import _batch
from support import building, children
from support.building import CONSUMERS, STRICT, SUFFIX
from support.header import PATH, PXD, TEXT, State, declared, declared_for_cython

# For T float and double. A change of any of these breaks programs: CSOFTMAX_ABI counts such changes.
FROZEN = {
    "softmax_row": "void (T const *, Py_ssize_t, T *)",
    "log_softmax_row": "void (T const *, Py_ssize_t, T *)",
    "logsumexp_row": "T (T const *, Py_ssize_t)",
    "cross_entropy_row": "T (T const *, Py_ssize_t, int64_t)",
    "cross_entropy_with_grad_row": "T (T const *, Py_ssize_t, int64_t, double, T *)",
    "log_prob_row": "T (T const *, Py_ssize_t, int64_t)",
    "partial": "void (STATE *, T const *, Py_ssize_t)",
    "merge": "void (STATE *, STATE const *)",
    "finish": "T (STATE const *)",
    "finish_loss": "T (STATE const *, T)",
    "finish_grad": "void (STATE const *, T const *, Py_ssize_t, Py_ssize_t, int64_t, double, T *)",
    "softmax": "int (T const *, SIZES, T *, Py_ssize_t, Py_ssize_t, int)",
    "log_softmax": "int (T const *, SIZES, T *, Py_ssize_t, Py_ssize_t, int)",
    "logsumexp": "int (T const *, SIZES, T *, int)",
    "cross_entropy": (
        "int (T const *, SIZES, void const *, int, int64_t, T *, T *, T *, Py_ssize_t, Py_ssize_t,"
        " double, int, Py_ssize_t *)"
    ),
    "log_prob": "int (T const *, SIZES, void const *, int, T *, int, Py_ssize_t *)",
}
# For H, the bits of half-width floats, after those; a row's results are floats.
FROZEN_HALVES = {
    "softmax_row": "void (H const *, Py_ssize_t, H *)",
    "log_softmax_row": "void (H const *, Py_ssize_t, H *)",
    "logsumexp_row": "float (H const *, Py_ssize_t)",
    "cross_entropy_row": "float (H const *, Py_ssize_t, int64_t)",
    "cross_entropy_with_grad_row": "float (H const *, Py_ssize_t, int64_t, double, H *)",
    "log_prob_row": "float (H const *, Py_ssize_t, int64_t)",
    "partial": "void (STATE *, H const *, Py_ssize_t)",
    "finish_grad": "void (STATE const *, H const *, Py_ssize_t, Py_ssize_t, int64_t, double, H *)",
    "softmax": "int (H const *, SIZES, H *, Py_ssize_t, Py_ssize_t, int)",
    "log_softmax": "int (H const *, SIZES, H *, Py_ssize_t, Py_ssize_t, int)",
    "logsumexp": "int (H const *, SIZES, float *, int)",
    "cross_entropy": (
        "int (H const *, SIZES, void const *, int, int64_t, float *, float *, H *, Py_ssize_t,"
        " Py_ssize_t, double, int, Py_ssize_t *)"
    ),
    "log_prob": "int (H const *, SIZES, void const *, int, float *, int, Py_ssize_t *)",
}
SIZES = "Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t"
STATE = "__pyx_t_8csoftmax_6_batch_csoftmax_state"
CONSTANTS = {
    "CSOFTMAX_ABI": 1,
    "CSOFTMAX_OK": 0,
    "CSOFTMAX_BAD_TARGET": 1,
    "CSOFTMAX_BAD_ARGUMENT": 2,
    "CSOFTMAX_NO_MEMORY": 3,
}
WORD = ctypes.sizeof(ctypes.c_size_t)
CAPSULE = b"csoftmax._batch.C_FUNCTIONS"


def frozen_signatures():
    """Name and signature of each function, in the order of the table."""
    kinds = {"f32": "float", "f64": "double"}, {"f16": "uint16_t", "bf16": "uint16_t"}
    return {
        f"{name}_{dtype}": re.sub(r"\b[TH]\b", kind, signature)
        .replace("SIZES", SIZES)
        .replace("STATE", STATE)
        for signatures, of in zip((FROZEN, FROZEN_HALVES), kinds, strict=True)
        for name, signature in signatures.items()
        for dtype, kind in of.items()
    }


def capsule_names():
    """What Cython compares when a module that cimports is imported."""
    name_of = ctypes.pythonapi.PyCapsule_GetName
    name_of.restype, name_of.argtypes = ctypes.c_char_p, (ctypes.py_object,)
    return {name: name_of(capsule).decode() for name, capsule in _batch.__pyx_capi__.items()}


def in_cythons_words(result, arguments):
    """A declaration as the name of a capsule."""
    kinds = [
        re.sub(r"^const (\w+)", r"\1 const", kind).replace("csoftmax_state", STATE)
        for kind, _ in arguments
    ]
    return f"{result} ({', '.join(kinds)})"


def test_the_signatures_of_all_functions_are_frozen():
    constructors = {"csoftmax_empty": f"{STATE} (void)", "csoftmax_ignore_none": "int64_t (void)"}
    assert capsule_names() == frozen_signatures() | constructors


def test_the_order_of_the_table_is_frozen():
    assert list(_batch.C_NAMES) == list(frozen_signatures())


def test_header_pxd_and_module_have_the_same_functions_in_the_same_order():
    assert declared() == declared_for_cython()
    signatures = {name: in_cythons_words(*rest) for name, *rest in declared()}
    assert list(signatures.items()) == list(frozen_signatures().items())


def test_every_field_of_the_table_is_the_address_of_its_name():
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    n = len(_batch.C_NAMES)
    words = (ctypes.c_size_t * (2 + n)).from_address(pointer_of(_batch.C_FUNCTIONS, CAPSULE))
    assert list(words[:2]) == [ctypes.sizeof(words), CONSTANTS["CSOFTMAX_ABI"]]
    assert list(words[2:]) == [csoftmax.address(name) for name in _batch.C_NAMES]
    assert len(set(words[2:])) == n
    assert 0 not in words


def test_sizes_offsets_and_numbers_are_frozen(tmp_path):
    fields = {"csoftmax_functions": ["size", "abi", *_batch.C_NAMES]}
    fields["csoftmax_state"] = ["maximum", "sum", "carry", "ties"]
    prints = [
        f'printf("{struct}.{field} %zu\\n", offsetof({struct}, {field}));'
        for struct in fields
        for field in fields[struct]
    ]
    prints += [f'printf("{struct} %zu\\n", sizeof({struct}));' for struct in fields]
    prints += [f'printf("{name} %d\\n", {name});' for name in CONSTANTS]
    source = tmp_path / "offsets.c"
    source.write_text(
        f"""
        #define CSOFTMAX_NO_PYTHON
        #include "csoftmax.h"
        #include <stdio.h>
        int main(void)
        {{
            csoftmax_state empty = CSOFTMAX_EMPTY;
            {" ".join(prints)}
            printf("%d %g %g %g %g\\n", CSOFTMAX_IGNORE_NONE == -0x7fffffffffffffff - 1,
                   empty.maximum, empty.sum, empty.carry, empty.ties);
            return 0;
        }}
        """
    )
    program = building.program(source, tmp_path / "offsets", "-std=c99", *STRICT)
    *lines, last = building.run(program, folder=tmp_path).splitlines()
    got = {name: int(number) for name, number in map(str.split, lines)}
    table = ["size", "abi", *frozen_signatures()]
    expected = {f"csoftmax_functions.{name}": i * WORD for i, name in enumerate(table)}
    expected |= {
        f"csoftmax_state.{field}": 8 * i for i, field in enumerate(fields["csoftmax_state"])
    }
    expected |= {"csoftmax_functions": 60 * WORD, "csoftmax_state": 32}
    assert got == expected | CONSTANTS
    assert last == "1 -inf 0 0 -1"


def test_the_numbers_of_the_pxd_are_those_of_the_header():
    pairs = re.findall(r"^    (CSOFTMAX_\w+) = (\d+)", PXD, re.MULTILINE)
    assert {name: int(number) for name, number in pairs} == CONSTANTS
    empty = ctypes.CFUNCTYPE(State)(_batch.address("csoftmax_empty"))()
    assert tuple(empty) == (-math.inf, 0, 0, -1)
    assert ctypes.CFUNCTYPE(ctypes.c_int64)(_batch.address("csoftmax_ignore_none"))() == -(2**63)


def test_the_header_is_short_enough_to_be_a_manual():
    lines = TEXT.splitlines()
    assert len(lines) < 250
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("standard", ["c99", "c11", "c++11", "c++17"])
@pytest.mark.parametrize("python", [True, False])
def test_the_header_compiles_without_warnings(tmp_path, standard, python):
    language = "c++" if "+" in standard else "c"
    source = tmp_path / f"twice.{language.replace('+', 'p')}"
    source.write_text(
        """
        #include "csoftmax.h"
        #include "csoftmax.h"
        csoftmax_state begin(void);
        csoftmax_state begin(void) { csoftmax_state empty = CSOFTMAX_EMPTY; return empty; }
        """
    )
    options = ["-c", f"-std={standard}", *STRICT]
    if not python:  # it is not even found
        options += ["-DCSOFTMAX_NO_PYTHON"]
    building.program(source, tmp_path / "twice.o", *options, language=language, with_python=python)


# ---- Programs that meet another csoftmax than the one they were compiled with ----


@pytest.fixture(scope="module")
def consumer(tmp_path_factory):
    """A folder with a module that was compiled with the header as it is."""
    folder = tmp_path_factory.mktemp("consumer")
    building.shared(CONSUMERS / "consumer.c", folder / f"consumer{SUFFIX}")
    return folder


def meets(folder, function, *differences):
    """What replaced_table.py prints."""
    return children.run_well(children.program("replaced_table"), folder, function, *differences)


@pytest.mark.parametrize("more", [0, 1, 100])
def test_a_program_runs_on_after_the_table_has_grown(consumer, more):
    assert meets(consumer, "runs", more * WORD, 0, more) == "done\n"


@pytest.mark.parametrize("fewer", [1, 26, 58])  # 26: before half-width floats were there
def test_a_table_that_is_older_and_smaller_is_an_import_error(consumer, fewer):
    assert meets(consumer, "fails", -fewer * WORD) == (
        f"csoftmax.h needs a table of {60 * WORD} bytes, got {(60 - fewer) * WORD} from the installed"
        " csoftmax, which is older: upgrade csoftmax\n"
    )


def test_a_program_compiled_with_a_newer_header_is_an_import_error(tmp_path):
    folder = tmp_path / "include"
    folder.mkdir()
    grown = TEXT.replace("} csoftmax_functions;", "    void (*newer)(void);\n} csoftmax_functions;")
    assert grown != TEXT
    (folder / PATH.name).write_text(grown)
    shutil.copy(CONSUMERS / "consumer.c", tmp_path)
    building.shared(tmp_path / "consumer.c", tmp_path / f"consumer{SUFFIX}", "-I", folder)
    assert meets(tmp_path, "fails") == (
        f"csoftmax.h needs a table of {61 * WORD} bytes, got {60 * WORD} from the installed csoftmax,"
        " which is older: upgrade csoftmax\n"
    )


@pytest.mark.parametrize("size", [-8, 0, 8])
@pytest.mark.parametrize("other", [-2, -1, 1])
def test_a_table_of_another_abi_is_an_import_error(consumer, other, size):
    assert meets(consumer, "fails", size, other, 1) == (
        f"csoftmax.h needs the C interface 1, got {1 + other} from the installed csoftmax: compile with"
        " the header that csoftmax.get_include() names\n"
    )


def test_a_csoftmax_without_a_table_is_an_import_error(consumer):
    assert meets(consumer, "has_none") == (
        "csoftmax.h needs a csoftmax with a C interface: upgrade csoftmax\n"
    )


def test_no_csoftmax_at_all_is_an_import_error(consumer):
    assert meets(consumer, "has_no_package").startswith("csoftmax")
