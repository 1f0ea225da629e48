//! The table of what a Backup does.
