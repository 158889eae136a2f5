-- lineage: the generation of this server's data. KEYS: lin. ARGV: durable ('' | '1'), fresh generation
return lineage(KEYS[1], ARGV[2], ARGV[1])
