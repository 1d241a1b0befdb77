-- KEYS[1]: the record. ARGV: for how long it lives.
local life = tonumber(ARGV[2])
if read(KEYS[1]).s == 'd' and redis.call('PTTL', KEYS[1]) > life then
  redis.call('PEXPIRE', KEYS[1], life)
end
return {'recorded'}
