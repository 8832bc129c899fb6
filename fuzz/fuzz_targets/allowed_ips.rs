#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hybridwg_fuzz::allowed_ips(data));
