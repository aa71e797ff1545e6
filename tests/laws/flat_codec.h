/* SPDX-License-Identifier: Apache-2.0 */
/* A number format for tests alone: see flat_codec.c. */
#ifndef OB_TESTS_LAWS_FLAT_CODEC_H
#define OB_TESTS_LAWS_FLAT_CODEC_H

#include "codec/codec.h"

#define OB_FLAT_BLOCK 64 /* elements that share a scale */

extern const struct ob_codec ob_codec_flat;

#endif
