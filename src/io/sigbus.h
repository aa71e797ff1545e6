/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults of mapped files. A page that cannot be read (the file was truncated, the device failed)
 * becomes a page of zeros and the file is marked `shrunk`; ob_file_check reports it.
 */
#ifndef OB_IO_SIGBUS_H
#define OB_IO_SIGBUS_H

struct ob_file;

/* From any thread. The first call installs the handler; what was installed before still gets every
 * fault outside the mapped files. */
void ob_sigbus_add(struct ob_file *f);
/* Before the map goes; no thread reads it any more. */
void ob_sigbus_remove(struct ob_file *f);

#endif
