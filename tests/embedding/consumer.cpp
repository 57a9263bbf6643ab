// The mean loss of tokens, in a library that knows no Python: its host hands the table of functions to it.
#define CSOFTMAX_NO_PYTHON
#include "csoftmax.h"
#include <algorithm>
#include <numeric>
#include <vector>

// logits (n_tokens, n_classes), of which some rows have no token: -100. Returns a status of csoftmax.h.
extern "C" int mean_loss(const csoftmax_functions *cs, const float *logits, const int32_t *tokens, ptrdiff_t n_tokens,
                         ptrdiff_t n_classes, double *mean, ptrdiff_t *bad_token)
{
    if (cs->abi != CSOFTMAX_ABI || cs->size < sizeof *cs) return CSOFTMAX_BAD_ARGUMENT;
    std::vector<float> loss(n_tokens);
    int status = cs->cross_entropy_f32(
        logits, n_tokens, n_classes, n_classes, 1,      // rows of neighbours, one after the other
        tokens, sizeof *tokens, -100,
        loss.data(), nullptr, nullptr, 0, 0, 1,         // no logsumexp, no gradient
        0, bad_token);                                  // as many threads as pay
    if (status == CSOFTMAX_OK)
        *mean = std::accumulate(loss.begin(), loss.end(), 0.0) /
                (n_tokens - std::count(tokens, tokens + n_tokens, -100));
    return status;
}
