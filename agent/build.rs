//! What the linker is told of the program.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Relative relocations packed: 8 bytes for some sixty instead of 24 for
    // each, 0.15 MB of the program. The program then asks for glibc 2.36, the
    // one that is promised (`glibc_promised` in scripts/lib.sh, which the build
    // scripts compare). A linker that does not know it, such as GNU's of bookworm
    // for ARM, says so and goes on.
    if env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
