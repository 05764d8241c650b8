//! How much room the arrays of a worker begin with: address space, not memory.
//!
//! Each thread has two arrays that grow with its tunnels. Were they to double, they would leave holes
//! as large as themselves behind, which the allocator keeps; were they made of pieces, it would keep
//! those when tunnels leave. So each is one allocation that is too large for any heap, and the
//! allocator asks the kernel for it alone. The kernel gives a page when it is first written to, and
//! takes all of them back at once when the array is dropped. Beyond that room an array doubles, and
//! even so nothing is copied: the kernel moves the pages.

/// From this size on, glibc always asks the kernel (`DEFAULT_MMAP_THRESHOLD_MAX`, mallopt(3)), and so
/// do other allocators.
const TOO_LARGE_FOR_A_HEAP: usize = 32 * 1024 * 1024;

/// Places for `T` that an array begins with.
pub(super) const fn places<T>() -> usize {
    TOO_LARGE_FOR_A_HEAP.div_ceil(size_of::<T>())
}
