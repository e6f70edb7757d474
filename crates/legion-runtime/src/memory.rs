//! Settings of the C library's allocator.

/// Makes all threads share one malloc arena.
///
/// By default, glibc gives each thread its own arena, and other threads cannot use the free memory in it. A process
/// with few threads and large caches then uses more memory without a benefit. Does nothing with another C library. Call
/// it before the first thread starts.
pub fn limit_malloc_arenas() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: the call takes two numbers and changes a limit inside the allocator, under the allocator's own lock.
        let _known = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}
