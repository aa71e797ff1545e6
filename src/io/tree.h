/* SPDX-License-Identifier: Apache-2.0 */
/* Folders through descriptors. No function follows a symbolic link; all set errno. */
#ifndef OB_IO_TREE_H
#define OB_IO_TREE_H

#include <stdbool.h>
#include <stddef.h>

/* Descriptor of folder rel[0 .. len) below root, or -1; len 0 is root itself. With `create`,
 * missing folders are made. The caller has checked that no component is "", "." or "..". */
int ob_tree_open(int root, const char *rel, size_t len, bool create);
/* 1 when `name` in `dir` is a folder without entries, 0 when not, -1. */
int ob_tree_is_empty(int dir, const char *name);
/* Removes everything in `dir` but the entry `keep` (NULL: everything); goes on after a failure. */
int ob_tree_clear(int dir, const char *keep);
/* Removes every file below `dir` that keep() does not want, given its path from there, and the folders
 * that are empty then. */
int ob_tree_prune(int dir, bool (*keep)(const void *ctx, const char *rel), const void *ctx);
/* fsync of `dir` and of every folder below it. */
int ob_tree_sync(int dir);

#endif
