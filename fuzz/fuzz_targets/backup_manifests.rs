#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| feast_vector::fuzzing::run("backup_manifests", data));
