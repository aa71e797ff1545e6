/* SPDX-License-Identifier: Apache-2.0 */
#include "build.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"

static struct ob_arena arena;
static const char *path;

static void clear(void)
{
	ob_arena_free(&arena);
	scratch_remove();
}

static void start(void)
{
	scratch_make();
	clearenv();
	path = NULL;
}

TestSuite(locate, .init = start, .fini = clear);

/* models--org--name below `cache`, with branch main and a pull request. */
static void put_cache(const char *cache, const char *commit)
{
	char name[256];

	snprintf(name, sizeof(name), "%s/models--org--name/snapshots/%s", cache, commit);
	put_folder(name);
	snprintf(name, sizeof(name), "%s/models--org--name/refs/refs/pr", cache);
	put_folder(name);
	snprintf(name, sizeof(name), "%s/models--org--name/refs/refs/pr/1", cache);
	put_text(name, commit);
	snprintf(name, sizeof(name), "%s/models--org--name/refs/main", cache);
	put_text(name, commit);
}

static void ends_in(const char *end)
{
	size_t n = strlen(end);

	cr_assert_geq(strlen(path), n);
	cr_assert_str_eq(path + strlen(path) - n, end);
}

Test(locate, path_as_it_is_without_slashes_at_the_end)
{
	put_folder("m");
	put_text("f.safetensors", "");
	works(ob_locate_model(&arena, in_scratch("m//"), &path, e));
	cr_assert_str_eq(path, in_scratch("m"));
	works(ob_locate_model(&arena, in_scratch("f.safetensors"), &path, e));
	cr_assert_str_eq(path, in_scratch("f.safetensors"));
	works(ob_locate_model(&arena, "/", &path, e));
	cr_assert_str_eq(path, "/");
}

Test(locate, existing_path_wins_over_cache)
{
	put_folder("org/name");
	put_cache("hub", COMMIT);
	setenv("HF_HUB_CACHE", in_scratch("hub"), 1);
	cr_assert_eq(chdir(scratch_dir), 0);
	works(ob_locate_model(&arena, "org/name", &path, e));
	cr_assert_str_eq(path, "org/name");
}

Test(locate, every_variable_of_the_cache)
{
	static const struct {
		const char *variable, *value, *cache;
	} place[] = {
		{ "HF_HUB_CACHE", "a", "a" },
		{ "HUGGINGFACE_HUB_CACHE", "b", "b" },
		{ "HF_HOME", "c", "c/hub" },
		{ "XDG_CACHE_HOME", "d", "d/huggingface/hub" },
		{ "HOME", "e", "e/.cache/huggingface/hub" },
	};

	for (size_t i = 0; i < sizeof(place) / sizeof(*place); i++) {
		put_cache(place[i].cache, COMMIT);
		clearenv();
		setenv(place[i].variable, in_scratch(place[i].value), 1);
		works(ob_locate_model(&arena, "org/name", &path, e));
		ends_in("/models--org--name/snapshots/" COMMIT);
		cr_assert_not_null(strstr(path, place[i].cache));
	}
}

Test(locate, first_cache_that_has_it)
{
	put_cache("a", "aaaa");
	put_cache("c/hub", "cccc");
	setenv("HF_HOME", in_scratch("c"), 1);
	setenv("HOME", in_scratch("nowhere"), 1);
	works(ob_locate_model(&arena, "org/name", &path, e));
	ends_in("/cccc");
	setenv("HF_HUB_CACHE", in_scratch("a"), 1);
	works(ob_locate_model(&arena, "org/name", &path, e));
	ends_in("/aaaa");
	setenv("HF_HUB_CACHE", "", 1); /* as if it were not set */
	works(ob_locate_model(&arena, "org/name", &path, e));
	ends_in("/cccc");
}

Test(locate, revisions)
{
	put_cache("hub", "aaaa");
	put_folder("hub/models--org--name/snapshots/bbbb");
	put_text("hub/models--org--name/refs/v2", "bbbb\n");
	put_folder("hub/models--gpt2/snapshots/eeee");
	put_folder("hub/models--gpt2/refs");
	put_text("hub/models--gpt2/refs/main", "eeee");
	setenv("HF_HUB_CACHE", in_scratch("hub"), 1);
	works(ob_locate_model(&arena, "org/name@main", &path, e));
	ends_in("/aaaa");
	works(ob_locate_model(&arena, "org/name@v2", &path, e));
	ends_in("/bbbb");
	works(ob_locate_model(&arena, "org/name@refs/pr/1", &path, e));
	ends_in("/aaaa");
	works(ob_locate_model(&arena, "org/name@bbbb", &path, e));
	ends_in("/bbbb");
	works(ob_locate_model(&arena, "gpt2", &path, e));
	ends_in("models--gpt2/snapshots/eeee");
	fails(ob_locate_model(&arena, "org/name@v3", &path, e), OB_IO, "revision v3");
}

Test(locate, snapshot_without_main)
{
	put_folder("hub/models--org--name/snapshots/aaaa");
	setenv("HF_HUB_CACHE", in_scratch("hub"), 1);
	fails(ob_locate_model(&arena, "org/name", &path, e), OB_IO, "NAME@REVISION");
	put_folder("hub/models--org--name/refs");
	put_text("hub/models--org--name/refs/main", "gone");
	fails(ob_locate_model(&arena, "org/name", &path, e), OB_IO, "revision main");
}

Test(locate, nothing_climbs_out_of_the_cache)
{
	put_cache("hub", COMMIT);
	put_folder("secret");
	setenv("HF_HUB_CACHE", in_scratch("hub"), 1);
	fails(ob_locate_model(&arena, "org/name@../../../secret", &path, e), OB_IO, "no file");
	fails(ob_locate_model(&arena, "org/name@", &path, e), OB_IO, "no file");
	fails(ob_locate_model(&arena, "a/b/c", &path, e), OB_IO, "no file");
	fails(ob_locate_model(&arena, "../x", &path, e), OB_IO, "no file");
	put_text("hub/models--org--name/refs/main", "../../../secret");
	fails(ob_locate_model(&arena, "org/name", &path, e), OB_UNSAFE, "refs/main");
}

Test(locate, says_where_it_looked)
{
	setenv("HF_HOME", "/nowhere/hf", 1);
	setenv("HOME", "/nowhere/home", 1);
	fails(ob_locate_model(&arena, "org/name", &path, e), OB_IO,
	      "/nowhere/hf/hub, /nowhere/home/.cache/huggingface/hub");
}

Test(locate, empty_environment)
{
	fails(ob_locate_model(&arena, "org/name", &path, e), OB_IO, "HF_HOME");
	fails(ob_locate_model(&arena, "", &path, e), OB_IO, "no file or folder");
}
