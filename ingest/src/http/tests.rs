mod connections;
mod dead_letters;
mod records;
mod streams;
