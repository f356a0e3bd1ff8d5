//! Settings of the BLAS, which it reads from the environment when it is loaded.

/// Environment variables that a program should be started with, for the BLAS to be fast and its results to be the same
/// on any number of threads.
///
/// * `OPENBLAS_NUM_THREADS`: one, because this crate runs the threads.
/// * `OPENBLAS_CORETYPE`: the kernels, by the instructions that the processor has. OpenBLAS itself goes by lists of
///   processor models; on one that is newer than the installed version it falls back to kernels without AVX, a fifth as
///   fast.
///
/// Other BLAS libraries read neither.
pub fn blas_environment() -> Vec<(&'static str, &'static str)> {
    let mut variables = vec![("OPENBLAS_NUM_THREADS", "1")];
    variables.extend(kernels().map(|kernels| ("OPENBLAS_CORETYPE", kernels)));
    variables
}

#[cfg(target_arch = "x86_64")]
fn kernels() -> Option<&'static str> {
    let has_avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    match (has_avx512, has_avx2) {
        (true, _) => Some("SkylakeX"),
        (false, true) => Some("Haswell"),
        (false, false) => None,
    }
}

/// No kernels to name: on other processors OpenBLAS chooses well.
#[cfg(not(target_arch = "x86_64"))]
fn kernels() -> Option<&'static str> {
    None
}
