/* SPDX-License-Identifier: Apache-2.0 */
/* Progress on stderr: a bar on a terminal, lines elsewhere, JSON lines, or nothing. */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cli.h"

#define LINE_SECONDS 10 /* between plain lines */
#define BAR 24

void progress_begin(struct progress *p, enum progress_mode mode)
{
	*p = (struct progress){ .mode = mode };
	if (mode == PROGRESS_AUTO) {
		const char *term = getenv("TERM");
		bool is_terminal = isatty(STDERR_FILENO) && term && strcmp(term, "dumb");
		p->mode = is_terminal ? PROGRESS_BAR : PROGRESS_PLAIN;
	}
}

static unsigned terminal_width(void)
{
	struct winsize w;
	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) || w.ws_col < 20)
		return 80;
	return w.ws_col;
}

/* "12.3" of 28 GB: numbers of bytes in decimal units, as disks are sold. */
static void bytes_text(char *buf, size_t size, double bytes)
{
	static const char *const unit[] = { "B", "kB", "MB", "GB", "TB" };
	unsigned i = 0;
	while (bytes >= 999.5 && i < 4) {
		bytes /= 1000;
		i++;
	}
	snprintf(buf, size, bytes < 9.95 && i ? "%.1f %s" : "%.0f %s", bytes, unit[i]);
}

static void time_text(char *buf, size_t size, double s)
{
	if (s < 0)
		snprintf(buf, size, "-:--");
	else if (s < 3600)
		snprintf(buf, size, "%d:%02d", (int)s / 60, (int)s % 60);
	else
		snprintf(buf, size, "%d:%02d:%02d", (int)s / 3600, (int)s / 60 % 60, (int)s % 60);
}

struct words {
	char done[16], total[16], rate[16], left[16];
	double percent;
};

static struct words words(const struct oocbake_progress *now)
{
	struct words w;
	bytes_text(w.done, sizeof(w.done), (double)now->done);
	bytes_text(w.total, sizeof(w.total), (double)now->total);
	bytes_text(w.rate, sizeof(w.rate), now->rate);
	time_text(w.left, sizeof(w.left), now->remaining);
	w.percent = now->total ? 100.0 * (double)now->done / (double)now->total : 100;
	return w;
}

static void show_bar(const struct oocbake_progress *now)
{
	struct words w = words(now);
	char line[512], name[512], bar[BAR + 1];
	unsigned full = (unsigned)(w.percent / 100 * BAR + 0.5);
	for (unsigned i = 0; i < BAR; i++)
		bar[i] = i < full ? '#' : '.';
	bar[BAR] = '\0';
	int n = snprintf(line, sizeof(line), "%s [%s] %3.0f%% %s of %s, %s/s, %s left, %s-bound ",
			 now->phase, bar, w.percent, w.done, w.total, w.rate, w.left, now->bound);
	unsigned width = terminal_width();
	name[0] = '\0';
	if (n > 0 && (unsigned)n + 12 < width)
		cli_escape(name, sizeof(name), now->tensor, width - (unsigned)n - 1);
	fprintf(stderr, "\r%.*s%s\033[K", (int)width - 1, line, name);
	fflush(stderr);
}

static void show_line(const struct oocbake_progress *now)
{
	struct words w = words(now);
	char name[256];
	cli_escape(name, sizeof(name), now->tensor, 120);
	fprintf(stderr, "%s: %.0f%%, %s of %s, %s/s, %s left, %s-bound, %s\n", now->phase,
		w.percent, w.done, w.total, w.rate, w.left, now->bound, name);
}

static void show_json(const struct oocbake_progress *now)
{
	fprintf(stderr,
		"{\"phase\": \"%s\", \"done\": %llu, \"total\": %llu, \"seconds\": %.3f, \"rate\": %.0f, \"remaining\": %.1f, \"shard\": %u, \"shards\": %u, \"bound\": \"%s\", \"tensor\": ",
		now->phase, (unsigned long long)now->done, (unsigned long long)now->total,
		now->seconds, now->rate, now->remaining, now->shard, now->shards, now->bound);
	cli_json_string(stderr, now->tensor);
	fputs("}\n", stderr);
}

void progress_show(void *user, const struct oocbake_progress *now)
{
	struct progress *p = user;
	switch (p->mode) {
	case PROGRESS_BAR:
		show_bar(now);
		p->is_open = true;
		break;
	case PROGRESS_JSON:
		show_json(now);
		break;
	case PROGRESS_PLAIN:
		if (p->next <= 0)
			p->next = LINE_SECONDS;
		if (now->seconds < p->next)
			break;
		p->next = now->seconds + LINE_SECONDS;
		show_line(now);
		break;
	case PROGRESS_AUTO:
	case PROGRESS_NONE:
		break;
	}
}

void progress_end(struct progress *p)
{
	if (p->is_open)
		fputs("\r\033[K", stderr);
	p->is_open = false;
}
