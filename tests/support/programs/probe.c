/* Functions in which a compiler's flags show; test_builds.py compiles them with those of setup.py. */
#define NAME_(name) PyInit_##name
#define NAME(name) NAME_(name)
void *NAME(MODULE)(void) { return 0; }
int fast_math(void)
{
#ifdef __FAST_MATH__
    return 1;
#else
    return 0;
#endif
}
double reassociated(double a, double b) { return (a + b) - a; }
int is_nan(double a) { return a != a; }
double unsigned_zero(double a) { return a + 0.0; }
double contracted(double a, double b, double c) { return a * b + c; }
double wide(double a, double b) { return a * b / b; }
float single_constant(float a) { return a * 0.1; }
double tiny(void) { return 4.9406564584124654e-324 * 1.0; }
void divided(double *a, double b) { int i; for (i = 0; i < 64; i++) a[i] /= b; }
