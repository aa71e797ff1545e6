/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Speed of each kernel in each table that this machine can run, on one core, data in the L2 cache.
 * Prints text, or with --json one JSON object per line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"

#define N 65536u /* elements: 256 KiB as float32 */
#define GROUP 64u

static float a[N], b[N], scales[N / GROUP], biases[N / GROUP];
static uint8_t packed[2 * N];
static bool json;

enum kind {
	BF16_TO_F32,
	F16_TO_F32,
	F32_TO_BF16,
	F32_TO_F16,
	ROUND_BF16,
	ROUND_F16,
	MAX_ABS_BITS,
	ADD,
	MLX_ENCODE,
	MLX_DECODE,
	MLX_DECODE_BF16,
	MLX_DECODE_F16,
	N_KINDS,
};

static const struct {
	const char *name;
	unsigned bytes; /* read and written per element, without codes and scales */
} kinds[N_KINDS] = {
	[BF16_TO_F32] = { "bf16_to_f32", 6 },	      [F16_TO_F32] = { "f16_to_f32", 6 },
	[F32_TO_BF16] = { "f32_to_bf16", 6 },	      [F32_TO_F16] = { "f32_to_f16", 6 },
	[ROUND_BF16] = { "round_bf16", 8 },	      [ROUND_F16] = { "round_f16", 8 },
	[MAX_ABS_BITS] = { "max_abs_bits", 4 },	      [ADD] = { "add", 12 },
	[MLX_ENCODE] = { "mlx_encode", 4 },	      [MLX_DECODE] = { "mlx_decode", 4 },
	[MLX_DECODE_BF16] = { "mlx_decode_bf16", 4 }, [MLX_DECODE_F16] = { "mlx_decode_f16", 4 },
};

/* Roughly normal: the sum of four uniform values. Deterministic. */
static void fill(float *x, size_t n)
{
	uint64_t s = 1;

	for (size_t i = 0; i < n; i++) {
		x[i] = 0;
		for (int j = 0; j < 4; j++) {
			s = s * 6364136223846793005u + 1442695040888963407u;
			x[i] += (float)(s >> 40) * 0x1p-24f - 0.5f;
		}
	}
}

static void run(const struct ob_kernels *k, enum kind kind, unsigned bits)
{
	static volatile uint32_t sink;

	switch (kind) {
	case BF16_TO_F32:
		k->bf16_to_f32(b, packed, N);
		break;
	case F16_TO_F32:
		k->f16_to_f32(b, packed, N);
		break;
	case F32_TO_BF16:
		k->f32_to_bf16(packed, a, N);
		break;
	case F32_TO_F16:
		k->f32_to_f16(packed, a, N);
		break;
	case ROUND_BF16:
		k->round_bf16(b, N);
		break;
	case ROUND_F16:
		k->round_f16(b, N);
		break;
	case MAX_ABS_BITS:
		sink = k->max_abs_bits(a, N);
		break;
	case ADD:
		k->add(b, a, N);
		break;
	case MLX_ENCODE:
		k->mlx_encode(packed, scales, biases, a, N, bits, GROUP);
		break;
	case MLX_DECODE:
		k->mlx_decode(b, packed, scales, biases, N, bits, GROUP);
		break;
	case MLX_DECODE_BF16:
		k->mlx_decode_bf16(b, packed, scales, biases, N, bits, GROUP);
		break;
	default:
		k->mlx_decode_f16(b, packed, scales, biases, N, bits, GROUP);
		break;
	}
	(void)sink;
}

/* Seconds of one run: the best of many short series. */
static double seconds(const struct ob_kernels *k, enum kind kind, unsigned bits)
{
	double best = 1e9;
	unsigned times = 1;

	for (int series = 0; series < 12; series++) {
		const double start = ob_now();
		double t;

		for (unsigned i = 0; i < times; i++)
			run(k, kind, bits);
		t = (ob_now() - start) / times;
		best = t < best ? t : best;
		times = (unsigned)(2e-3 / best) + 1;
	}
	return best;
}

static void report(const struct ob_kernels *k, enum kind kind, unsigned bits)
{
	const double s = seconds(k, kind, bits);
	const double bytes = kinds[kind].bytes + (bits ? bits / 8.0 + 8.0 / GROUP : 0);
	const double elements = N / s * 1e-9;

	if (json)
		printf("{\"kernel\": \"%s\", \"bits\": %u, \"isa\": \"%s\", \"gelem_per_s\": %.3f, "
		       "\"gb_per_s\": %.3f}\n",
		       kinds[kind].name, bits, k->name, elements, elements * bytes);
	else
		printf("%-16s %4u  %-7s %8.2f %8.1f\n", kinds[kind].name, bits, k->name, elements,
		       elements * bytes);
}

int main(int argc, char **argv)
{
	static const unsigned widths[] = { 2, 3, 4, 5, 6, 8 };

	json = argc == 2 && strcmp(argv[1], "--json") == 0;
	if (argc > 1 && !json) {
		fprintf(stderr, "usage: bench_kernels [--json]\n");
		return EXIT_FAILURE;
	}
	if (!json)
		printf("%-16s %4s  %-7s %8s %8s\n", "kernel", "bits", "isa", "Gelem/s", "GB/s");
	fill(a, N);
	for (enum kind kind = 0; kind < N_KINDS; kind++) {
		for (enum ob_isa isa = OB_ISA_REF; isa <= OB_ISA_NEON; isa++) {
			const struct ob_kernels *k = ob_kernels_of(isa);

			if (!k)
				continue;
			memset(b, 0, sizeof(b));
			k->f32_to_bf16(packed, a, N);
			if (kind < MLX_ENCODE) {
				report(k, kind, 0);
				continue;
			}
			for (size_t i = 0; i < sizeof(widths) / sizeof(*widths); i++) {
				k->mlx_encode(packed, scales, biases, a, N, widths[i], GROUP);
				report(k, kind, widths[i]);
			}
		}
	}
	return EXIT_SUCCESS;
}
