mod access;
mod connections;
mod dead_letters;
mod metadata;
mod records;
mod streams;
mod token;
