-- inherited: all that a dead worker owned has another owner, or has ended. KEYS: dead. ARGV: the dead one
return redis.call('HDEL', KEYS[1], ARGV[1])
