//! The long form of `--version`: what a report of wrong or slow numbers must say about the build and the machine.

use std::sync::LazyLock;

/// Version, BLAS, its kernels, and what the processor has.
pub fn long() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(|| {
        format!(
            "{}\nBLAS: {}, kernels {}, one thread per call\nCPU: {}, {} threads, {}",
            env!("CARGO_PKG_VERSION"),
            blas(),
            kernels(),
            std::env::consts::ARCH,
            std::thread::available_parallelism().map_or(1, usize::from),
            cpu_features(),
        )
    });
    &LONG
}

/// The backend that the build was made with, by the name of its feature.
fn blas() -> String {
    let features = [
        ("openblas-system", cfg!(feature = "openblas-system")),
        ("openblas-static", cfg!(feature = "openblas-static")),
        ("netlib-system", cfg!(feature = "netlib-system")),
        ("netlib-static", cfg!(feature = "netlib-static")),
        ("intel-mkl-system", cfg!(feature = "intel-mkl-system")),
        ("intel-mkl-static", cfg!(feature = "intel-mkl-static")),
    ];
    let chosen: Vec<&str> = features.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    if chosen.is_empty() { "none chosen".into() } else { chosen.join(", ") }
}

/// The kernels that OpenBLAS was told to use.
fn kernels() -> String {
    let named = locus_gpt2::blas_environment().into_iter().find(|(name, _)| *name == "OPENBLAS_CORETYPE");
    let set = std::env::var("OPENBLAS_CORETYPE").ok().filter(|name| !name.is_empty());
    set.map(|name| super::output::one_line(&name))
        .or(named.map(|(_, kernels)| kernels.to_owned()))
        .unwrap_or_else(|| "of its own choice".into())
}

/// The instruction sets that the kernels here and in the BLAS make use of.
#[cfg(target_arch = "x86_64")]
fn cpu_features() -> String {
    let features = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512dq", is_x86_feature_detected!("avx512dq")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
    ];
    let present: Vec<&str> = features.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect();
    if present.is_empty() { "without AVX2".into() } else { present.join(" ") }
}

/// On other processors nothing is chosen by instruction set.
#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> String {
    "instruction sets not asked for".into()
}
