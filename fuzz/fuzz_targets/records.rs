//! JSON, and every record that is made of it. What is taken is written and read back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sliverfs::catalog::base::Base;
use sliverfs::catalog::{Mounted, Sliver, record};
use sliverfs::json::{self, FromJson, Json};
use sliverfs_fuzz::{file, with_room};

fn back<T: FromJson + serde::Serialize>(json: &Json) {
    if let Ok(record) = T::from_json(json) {
        let text = json::write(&record).unwrap();
        let again = T::from_json(&Json::parse(&text).unwrap()).unwrap();
        assert_eq!(json::write(&again).unwrap(), text);
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(json) = Json::parse(bytes) {
        back::<Sliver>(&json);
        back::<Base>(&json);
        back::<Mounted>(&json);
    }
    with_room(|room| {
        let _damaged = record::read::<Sliver>(&file(room, "sliver.json", bytes));
    });
});
