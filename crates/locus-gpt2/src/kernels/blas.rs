//! What the BLAS is told before it is loaded.

/// Variables that a program's environment should have when it is loaded, for the BLAS to be fast and its results to be the
/// same on any number of threads.
///
/// * `OPENBLAS_NUM_THREADS`: one, because the parallel work is ours.
/// * `OPENBLAS_CORETYPE`: the kernels, chosen by what the processor can do. OpenBLAS itself goes by lists of models, and on a
///   model that is newer than it falls back to kernels without AVX, a fifth as fast.
///
/// Another BLAS reads neither.
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

/// On other processors OpenBLAS chooses.
#[cfg(not(target_arch = "x86_64"))]
fn kernels() -> Option<&'static str> {
    None
}
