//! Custom resource types of the Legion platform: specs, statuses, typed names, reasons, validation.
