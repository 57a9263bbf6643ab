/* The loss of a row that comes in pieces and is never in memory as a whole: a module of Python. */
#include "csoftmax.h"

static const csoftmax_functions *cs;

static PyObject *loss_of_pieces(PyObject *Py_UNUSED(module), PyObject *args)
{
    csoftmax_state row = CSOFTMAX_EMPTY;
    float target_logit = NAN;
    Py_ssize_t target, n, first = 0;
    PyObject *pieces, *piece;
    Py_buffer x;
    if (!PyArg_ParseTuple(args, "On", &pieces, &target)) return NULL;
    if ((pieces = PyObject_GetIter(pieces)) == NULL) return NULL;
    while ((piece = PyIter_Next(pieces)) != NULL) {
        if (PyObject_GetBuffer(piece, &x, PyBUF_SIMPLE) == 0) {
            if (x.len % sizeof(float)) PyErr_SetString(PyExc_ValueError, "a piece ends within a float");
            n = x.len / (Py_ssize_t)sizeof(float);
            cs->partial_f32(&row, x.buf, n);
            if (first <= target && target < first + n)
                memcpy(&target_logit, (char *)x.buf + (target - first) * sizeof(float), sizeof(float));
            first += n;
            PyBuffer_Release(&x);
        }
        Py_DECREF(piece);
        if (PyErr_Occurred()) break;
    }
    Py_DECREF(pieces);
    return PyErr_Occurred() ? NULL : PyFloat_FromDouble(cs->finish_loss_f32(&row, target_logit));
}

static PyMethodDef methods[] = {{"loss_of_pieces", loss_of_pieces, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "consumer", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit_consumer(void)
{
    cs = csoftmax_import();         /* once */
    return cs == NULL ? NULL : PyModule_Create(&module);
}
