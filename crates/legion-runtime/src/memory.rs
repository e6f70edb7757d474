//! How the C library's allocator keeps what is free.

/// Has all threads share one arena. glibc gives each thread one of its own, and what is free in one is of no use to the
/// others: a process with a few threads and large caches holds more for it, and gains nothing. Does nothing where the C
/// library is another. Call it before the first thread is started.
pub fn limit_malloc_arenas() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it takes two numbers and changes a limit inside the allocator, under the allocator's own lock.
        let _known = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}
