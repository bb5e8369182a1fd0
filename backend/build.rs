//! What the linker is told of the program.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // `strip = true` of the profile is lost where the profile says something of
    // a package, as it does of this one: cargo begins anew with its default for
    // that package, and 1.4 MB of names stay in the program. A build with debug
    // information keeps them.
    let is = |name: &str, value: &str| env::var(name).as_deref() == Ok(value);
    if is("PROFILE", "release") && is("DEBUG", "false") && is("CARGO_CFG_TARGET_OS", "linux") {
        // A compiler that links puts its own `-s` before what rustc says, and
        // the last word counts.
        let linker = env::var("RUSTC_LINKER").unwrap_or_default();
        let strip = if linker.ends_with("lld") {
            "-s"
        } else {
            "-Wl,--strip-all"
        };
        println!("cargo::rustc-link-arg-bins={strip}");
    }
}
