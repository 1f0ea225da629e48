//! Formats that engines write and read, as streams that are looked at while they pass. Pure.

pub mod extjson;
pub mod file_index;
pub mod mongodump;
pub mod pgdump;
pub mod rdb;
pub mod sqldump;
pub mod table_name;
pub mod tar;
