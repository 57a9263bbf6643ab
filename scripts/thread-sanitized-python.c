/* Python for `make thread-sanitize`. ThreadSanitizer's runtime has to be the first thing in a process, so it is linked
 * to the program; preloaded, that of Clang 14 crashes. Options can be set here alone: children that tests start have
 * them too. */

int Py_BytesMain(int n_words, char **words);

/* A race ends the process, by a report on stderr. The stacks of accesses are kept long enough (history_size) for the
 * other side of a race: one whose stack is gone is not reported. Having no memory is a status that tests ask for. */
const char *__tsan_default_options(void)
{
    return "halt_on_error=1:history_size=4:atexit_sleep_ms=0:allocator_may_return_null=1";
}

/* Of libomp's threads archer says how they wait for each other, but not how libomp guards its own mutexes. What archer
 * advises, ignore_noninstrumented_modules, would also hide what csoftmax does by memcpy. */
const char *__tsan_default_suppressions(void) { return "called_from_lib:libomp.so"; }

int main(int n_words, char **words) { return Py_BytesMain(n_words, words); }
