#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hybridwg_fuzz::http(data));
