//! Writes into the command where libtorch lies, if it is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // of the build script of `simmim-libtorch`, where the feature `libtorch` is on
    if let Some(folder) = std::env::var_os("DEP_SIMMIM_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
        println!("cargo:rustc-env=SIMMIM_LIBTORCH_FOLDER={}", folder.display());
    }
}
