/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the staging folder share: stage.c makes and publishes, stage_space.c reserves,
 * stage_resume.c goes on. */
#ifndef OB_IO_STAGE_IMPL_H
#define OB_IO_STAGE_IMPL_H

#include <fcntl.h>
#include <sys/types.h>

#include "io/stage.h"

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

struct stage_file {
	struct ob_handle handle;
	struct ob_stage *st;
	char *path;	 /* for messages: where it will be */
	const char *rel; /* its end: the path below `out` */
	uint64_t size;
	ino_t ino;	/* 0 until it is created */
	bool is_sealed; /* synced and closed */
};

struct ob_stage {
	char *path;			/* the final path as given, without slashes at its end */
	char *dir;			/* its folder */
	const char *name;		/* its last component */
	char *hidden;			/* name of the staging folder */
	int parent, staging, out, lock; /* descriptors or -1 */
	bool is_file, force, published;
	bool taken_over; /* from a run that ended early */
	bool keep;	 /* close leaves it */
	bool has_old;	 /* the old output could not be put back */
	int journal;	 /* descriptor or -1 */
	char *where;	 /* path of the staging folder, made when it is asked for */
	uint64_t total;	 /* bytes that the whole output needs, for messages */
	struct stage_file **file;
	size_t n_files, cap_files;
};

/* Checks, creates the folder if need be, and locks. */
int ob_stage_lock(struct ob_stage **st, const char *final_path, bool is_file, bool force,
		  ob_err *e);
/* Empties it and creates `out`. */
int ob_stage_renew(struct ob_stage *st, ob_err *e);
/* Of a file that is about to be created in a stage that was taken over: may the one that lies there be
 * used? Removes it if not. Small files (!direct) are always made again. */
bool ob_stage_adopt(struct stage_file *f, bool direct);
/* Space for the whole file, which has just been opened; sets its size. */
int ob_stage_reserve(const struct stage_file *f, ob_err *e);

#endif
