//! Compiles the C++ and says where libtorch lies: to the tests of this crate, and to whoever depends on it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "tch")]
    build();
}

#[cfg(feature = "tch")]
fn build() {
    let files = ["src/shim.cpp", "src/streams.cpp", "src/recorded_graph.cpp"];
    files.iter().chain(&["src/caught.h"]).for_each(|file| println!("cargo:rerun-if-changed={file}"));
    // torch-sys found it
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where libtorch lies");
    let include = std::path::Path::new(&lib).join("../include");
    let windows = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "windows");
    cc::Build::new()
        .cpp(true)
        .warnings(false)
        .include(include.join("torch/csrc/api/include"))
        .include(&include)
        .std("c++17")
        // libtorch is built so, and some assertions in its headers read what only other builds write
        .define("NDEBUG", None)
        .flag_if_supported("-Wno-deprecated")
        .files(files)
        .compile("simmim_shim");
    if !windows {
        println!("cargo:lib={lib}");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
