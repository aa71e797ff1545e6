/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scales of scales. The mean of all scales is taken off; what remains is quantized to 8 bits in
 * groups of 256 with a map that is finer towards zero. Mean and largest remainder are known only
 * when the whole tensor was seen: the first pass over it collects what both follow from.
 */
#include <math.h>
#include <string.h>

#include "base/num.h"
#include "codec/bnb.h"

/* bitsandbytes' "dynamic" map: +-(0.1 + 0.9 (j + 1/2) / 2^e) 10^(e-6) for e < 7 and j < 2^e, 0 and
 * 1; each rounded once. (torch computes it with errors in the last place that depend on the CPU, so
 * that files carry the map they were made with.) */
const float ob_bnb_map[256] = {
	-0x1.fc6666p-1f,  -0x1.f53334p-1f,  -0x1.eep-1f,      -0x1.e6ccccp-1f,
	-0x1.df999ap-1f,  -0x1.d86666p-1f,  -0x1.d13334p-1f,  -0x1.cap-1f,
	-0x1.c2ccccp-1f,  -0x1.bb999ap-1f,  -0x1.b46666p-1f,  -0x1.ad3334p-1f,
	-0x1.a6p-1f,	  -0x1.9eccccp-1f,  -0x1.97999ap-1f,  -0x1.906666p-1f,
	-0x1.893334p-1f,  -0x1.82p-1f,	    -0x1.7accccp-1f,  -0x1.73999ap-1f,
	-0x1.6c6666p-1f,  -0x1.653334p-1f,  -0x1.5ep-1f,      -0x1.56ccccp-1f,
	-0x1.4f999ap-1f,  -0x1.486666p-1f,  -0x1.413334p-1f,  -0x1.3ap-1f,
	-0x1.32ccccp-1f,  -0x1.2b999ap-1f,  -0x1.246666p-1f,  -0x1.1d3334p-1f,
	-0x1.16p-1f,	  -0x1.0eccccp-1f,  -0x1.07999ap-1f,  -0x1.006666p-1f,
	-0x1.f26666p-2f,  -0x1.e4p-2f,	    -0x1.d5999ap-2f,  -0x1.c73334p-2f,
	-0x1.b8ccccp-2f,  -0x1.aa6666p-2f,  -0x1.9cp-2f,      -0x1.8d999ap-2f,
	-0x1.7f3334p-2f,  -0x1.70ccccp-2f,  -0x1.626666p-2f,  -0x1.54p-2f,
	-0x1.45999ap-2f,  -0x1.373334p-2f,  -0x1.28ccccp-2f,  -0x1.1a6666p-2f,
	-0x1.0cp-2f,	  -0x1.fb3334p-3f,  -0x1.de6666p-3f,  -0x1.c1999ap-3f,
	-0x1.a4ccccp-3f,  -0x1.88p-3f,	    -0x1.6b3334p-3f,  -0x1.4e6666p-3f,
	-0x1.31999ap-3f,  -0x1.14ccccp-3f,  -0x1.fp-4f,	      -0x1.b66666p-4f,
	-0x1.93d70ap-4f,  -0x1.8851ecp-4f,  -0x1.7cccccp-4f,  -0x1.7147aep-4f,
	-0x1.65c29p-4f,	  -0x1.5a3d7p-4f,   -0x1.4eb852p-4f,  -0x1.433334p-4f,
	-0x1.37ae14p-4f,  -0x1.2c28f6p-4f,  -0x1.20a3d8p-4f,  -0x1.151eb8p-4f,
	-0x1.09999ap-4f,  -0x1.fc28f6p-5f,  -0x1.e51eb8p-5f,  -0x1.ce147ap-5f,
	-0x1.b70a3ep-5f,  -0x1.ap-5f,	    -0x1.88f5c2p-5f,  -0x1.71eb86p-5f,
	-0x1.5ae148p-5f,  -0x1.43d70ap-5f,  -0x1.2cccccp-5f,  -0x1.15c29p-5f,
	-0x1.fd70a4p-6f,  -0x1.cf5c28p-6f,  -0x1.a147aep-6f,  -0x1.733334p-6f,
	-0x1.451eb8p-6f,  -0x1.170a3ep-6f,  -0x1.d1eb86p-7f,  -0x1.75c29p-7f,
	-0x1.3e76c8p-7f,  -0x1.2c0832p-7f,  -0x1.19999ap-7f,  -0x1.072b02p-7f,
	-0x1.e978d4p-8f,  -0x1.c49ba6p-8f,  -0x1.9fbe76p-8f,  -0x1.7ae148p-8f,
	-0x1.560418p-8f,  -0x1.3126eap-8f,  -0x1.0c49bap-8f,  -0x1.ced916p-9f,
	-0x1.851eb8p-9f,  -0x1.3b645ap-9f,  -0x1.e353f8p-10f, -0x1.4fdf3cp-10f,
	-0x1.eecbfcp-11f, -0x1.b3d07cp-11f, -0x1.78d4fep-11f, -0x1.3dd98p-11f,
	-0x1.02dep-11f,	  -0x1.8fc504p-12f, -0x1.19ce08p-12f, -0x1.47ae14p-13f,
	-0x1.743e96p-14f, -0x1.15df66p-14f, -0x1.6f0068p-15f, -0x1.64840ep-16f,
	-0x1.040bfep-17f, -0x1.b43526p-19f, -0x1.27476cp-21f, 0,
	0x1.27476cp-21f,  0x1.b43526p-19f,  0x1.040bfep-17f,  0x1.64840ep-16f,
	0x1.6f0068p-15f,  0x1.15df66p-14f,  0x1.743e96p-14f,  0x1.47ae14p-13f,
	0x1.19ce08p-12f,  0x1.8fc504p-12f,  0x1.02dep-11f,    0x1.3dd98p-11f,
	0x1.78d4fep-11f,  0x1.b3d07cp-11f,  0x1.eecbfcp-11f,  0x1.4fdf3cp-10f,
	0x1.e353f8p-10f,  0x1.3b645ap-9f,   0x1.851eb8p-9f,   0x1.ced916p-9f,
	0x1.0c49bap-8f,	  0x1.3126eap-8f,   0x1.560418p-8f,   0x1.7ae148p-8f,
	0x1.9fbe76p-8f,	  0x1.c49ba6p-8f,   0x1.e978d4p-8f,   0x1.072b02p-7f,
	0x1.19999ap-7f,	  0x1.2c0832p-7f,   0x1.3e76c8p-7f,   0x1.75c29p-7f,
	0x1.d1eb86p-7f,	  0x1.170a3ep-6f,   0x1.451eb8p-6f,   0x1.733334p-6f,
	0x1.a147aep-6f,	  0x1.cf5c28p-6f,   0x1.fd70a4p-6f,   0x1.15c29p-5f,
	0x1.2cccccp-5f,	  0x1.43d70ap-5f,   0x1.5ae148p-5f,   0x1.71eb86p-5f,
	0x1.88f5c2p-5f,	  0x1.ap-5f,	    0x1.b70a3ep-5f,   0x1.ce147ap-5f,
	0x1.e51eb8p-5f,	  0x1.fc28f6p-5f,   0x1.09999ap-4f,   0x1.151eb8p-4f,
	0x1.20a3d8p-4f,	  0x1.2c28f6p-4f,   0x1.37ae14p-4f,   0x1.433334p-4f,
	0x1.4eb852p-4f,	  0x1.5a3d7p-4f,    0x1.65c29p-4f,    0x1.7147aep-4f,
	0x1.7cccccp-4f,	  0x1.8851ecp-4f,   0x1.93d70ap-4f,   0x1.b66666p-4f,
	0x1.fp-4f,	  0x1.14ccccp-3f,   0x1.31999ap-3f,   0x1.4e6666p-3f,
	0x1.6b3334p-3f,	  0x1.88p-3f,	    0x1.a4ccccp-3f,   0x1.c1999ap-3f,
	0x1.de6666p-3f,	  0x1.fb3334p-3f,   0x1.0cp-2f,	      0x1.1a6666p-2f,
	0x1.28ccccp-2f,	  0x1.373334p-2f,   0x1.45999ap-2f,   0x1.54p-2f,
	0x1.626666p-2f,	  0x1.70ccccp-2f,   0x1.7f3334p-2f,   0x1.8d999ap-2f,
	0x1.9cp-2f,	  0x1.aa6666p-2f,   0x1.b8ccccp-2f,   0x1.c73334p-2f,
	0x1.d5999ap-2f,	  0x1.e4p-2f,	    0x1.f26666p-2f,   0x1.006666p-1f,
	0x1.07999ap-1f,	  0x1.0eccccp-1f,   0x1.16p-1f,	      0x1.1d3334p-1f,
	0x1.246666p-1f,	  0x1.2b999ap-1f,   0x1.32ccccp-1f,   0x1.3ap-1f,
	0x1.413334p-1f,	  0x1.486666p-1f,   0x1.4f999ap-1f,   0x1.56ccccp-1f,
	0x1.5ep-1f,	  0x1.653334p-1f,   0x1.6c6666p-1f,   0x1.73999ap-1f,
	0x1.7accccp-1f,	  0x1.82p-1f,	    0x1.893334p-1f,   0x1.906666p-1f,
	0x1.97999ap-1f,	  0x1.9eccccp-1f,   0x1.a6p-1f,	      0x1.ad3334p-1f,
	0x1.b46666p-1f,	  0x1.bb999ap-1f,   0x1.c2ccccp-1f,   0x1.cap-1f,
	0x1.d13334p-1f,	  0x1.d86666p-1f,   0x1.df999ap-1f,   0x1.e6ccccp-1f,
	0x1.eep-1f,	  0x1.f53334p-1f,   0x1.fc6666p-1f,   0x1p+0f,
};

enum { SUM, REST, FIRST_GROUP };

static uint64_t group_of(uint64_t block)
{
	return block / OB_BNB_NESTED_BLOCK;
}

size_t ob_bnb_stats_size(uint64_t b0, uint64_t b1)
{
	return FIRST_GROUP + 2 * (size_t)(ob_div_up(b1, OB_BNB_NESTED_BLOCK) - group_of(b0));
}

/* Keeps what a sum rounds off, so that the mean does not depend on the order of the tiles. */
static void add(double *stats, double x)
{
	double sum = stats[SUM] + x, part = sum - stats[SUM];

	stats[REST] += (stats[SUM] - (sum - part)) + (x - part);
	stats[SUM] = sum;
}

static uint32_t bits_of(float x)
{
	uint32_t u;

	memcpy(&u, &x, sizeof(u));
	return u;
}

static float of_bits(double u)
{
	uint32_t bits = (uint32_t)u;
	float x;

	memcpy(&x, &bits, sizeof(x));
	return x;
}

static void keep_larger(double *most, double x)
{
	*most = x > *most ? x : *most;
}

/* Scales are not negative: their bit patterns are in the same order. The smallest is kept as its
 * distance from the end, because statistics begin as 0. */
void ob_bnb_stats_add(double *stats, uint64_t b0, uint64_t b, const float *absmax, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		double *group = stats + FIRST_GROUP + 2 * (group_of(b + i) - group_of(b0));

		add(stats, absmax[i]);
		keep_larger(&group[0], bits_of(absmax[i]));
		keep_larger(&group[1], UINT32_MAX - bits_of(absmax[i]));
	}
}

void ob_bnb_stats_fold(double *total, uint64_t b0, uint64_t b1, const double *stats)
{
	double *to = total + FIRST_GROUP + 2 * group_of(b0);
	size_t n = ob_bnb_stats_size(b0, b1) - FIRST_GROUP;

	add(total, stats[SUM]);
	total[REST] += stats[REST];
	for (size_t i = 0; i < n; i++)
		keep_larger(&to[i], stats[FIRST_GROUP + i]);
}

float ob_bnb_stats_mean(const double *total, uint64_t n)
{
	return (float)((total[SUM] + total[REST]) / (double)n);
}

float ob_bnb_stats_scale(const double *total, uint64_t k, float mean)
{
	const double *group = total + FIRST_GROUP + 2 * k;
	float above = fabsf(of_bits(group[0]) - mean);
	float below = fabsf(of_bits(UINT32_MAX - group[1]) - mean);

	return above > below ? above : below;
}

/* Half way between two entries the even one is taken, as by bitsandbytes' search. */
uint8_t ob_bnb_nearest(float y)
{
	unsigned below = 0; /* the last entry that is less than y */
	float middle;

	for (unsigned step = 128; step > 0; step /= 2)
		if (ob_bnb_map[below + step] < y)
			below += step;
	if (below == 255 || !(ob_bnb_map[below] < y))
		return (uint8_t)below;
	middle = (ob_bnb_map[below] + ob_bnb_map[below + 1]) * 0.5f;
	if (y == middle)
		return (uint8_t)(below + (below & 1));
	return (uint8_t)(below + (y > middle));
}
