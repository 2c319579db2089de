-- Tell a room's readers something that nobody will miss, if its author may speak now; from one author only now and then.
--
-- KEYS  1 meta, 2 log, 3 gone, 4 notes, 5 feed, 6 room, 7 members, 8 quiet   as in append.lua
--       9 hush  string, there while this author's signals are swallowed
-- ARGV  1 head, 2 keep, 3 keep_ms, 4 epoch, 5 user, 6 role, 7 public, 8 blocker, 9 least   as in append.lua
--       10 pause_ms  how long the author's next ones are swallowed; 0: this one is told in any case, and so
--                    is the next
-- Returns {1} told, {0} swallowed; or {-1, why, 0} when it was refused, with why as in publish.lua.

local role, why = author_role()
if not role then return {-1, why, 0} end
if ARGV[10] == '0' then
  redis.call('DEL', KEYS[9])
elseif not redis.call('SET', KEYS[9], '', 'NX', 'PX', ARGV[10]) then
  return {0}
end
redis.call('SPUBLISH', KEYS[5], 's\n' .. ARGV[1] .. '}')
return {1}
