/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The low-rank update. gemm.c is the only file that includes blis.h.
 *
 * Results do not depend on the tile or the thread: one BLIS thread per call, the small-matrix path
 * off, k split at 256 with beta = 1. With an FMA sub-config the result of each element is the chain
 * fma(a[0]b[0]), fma(a[1]b[1]), ... in ascending k, on every CPU; `generic` differs.
 */
#ifndef OB_KERNELS_GEMM_H
#define OB_KERNELS_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define OB_GEMM_K_MAX 256u /* callers split k here, ascending */

/* Chooses the BLIS sub-config by timing each candidate in a child process (a wrong one may abort or
 * die of SIGILL there), then initialises BLIS. Call before any thread exists; a second call does
 * nothing. Honours a BLIS_ARCH_TYPE that the user set: OB_USAGE when it does not run here. Other
 * errors: OB_IO when no child can be made, OB_INTERNAL. */
int ob_gemm_init(ob_err *e);
/* Name of the chosen sub-config ("skx") and version of the library. NULL before init. */
const char *ob_gemm_arch(void);
const char *ob_gemm_version(void);
/* True when the sub-config fuses multiply and add (results equal the fma chain). */
bool ob_gemm_is_fma(void);
/* Touches what a product of the largest shape would, so that BLIS takes its packing memory now.
 * Once per worker, all at the same time and before any input is read: BLIS has a block for each
 * call that is under way, and aborts when it is refused one later. */
void ob_gemm_warm_up(size_t m, size_t n, size_t k);
/* Resident bytes that BLIS keeps per thread that calls gemm with at most these sizes. */
uint64_t ob_gemm_memory(size_t m, size_t n, size_t k);

/* C[m,n] = (accumulate ? C : 0) + A[m,k] B[k,n]; row-major, ld in elements; k <= OB_GEMM_K_MAX. */
void ob_gemm(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t ldb, size_t m,
	     size_t n, size_t k, bool accumulate);

#endif
